/**
 * A string as Python's json.dumps writes it: in quotes, and ASCII only. Some of the original's output is made by
 * Python, and ours is the same byte for byte.
 */
export function pythonString(text: string): string {
  return JSON.stringify(text).replace(/[^ -~]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
