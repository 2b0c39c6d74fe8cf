/** A route's answer, whether it goes out as HTTP or inside an encrypted onion reply. */
export interface Answer {
  /** HTTP status, or the `code` of a v4 onion reply. */
  readonly status: number;
  /** Names in lower case. Without `content-length`, which the outer layer adds. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array | string;
}

const HTML = 'text/html; charset=utf-8';
const JSON_TYPE = 'application/json';

/** An answer in JSON. @param body the JSON text */
export function jsonAnswer(status: number, body: Uint8Array | string): Answer {
  return { status, headers: { 'content-type': JSON_TYPE }, body };
}

/**
 * An error of the front-end itself, with the newline that the original puts after its own (docs/spec/onionreq.md,
 * section 2).
 */
export function errorAnswer(status: number, code: number, message: string): Answer {
  return jsonAnswer(status, `${JSON.stringify({ error: code, message })}\n`);
}

/** Byte for byte the original's (Flask's) answer to an unknown path. */
export const notFound: Answer = {
  status: 404,
  headers: { 'content-type': HTML },
  body: page(
    404,
    'Not Found',
    'The requested URL was not found on the server. If you entered the URL manually please check your spelling and try again.',
  ),
};

/** Byte for byte the original's (Flask's) answer to a method other than POST. */
export const methodNotAllowed: Answer = {
  status: 405,
  headers: { 'content-type': HTML, allow: 'POST, OPTIONS' },
  body: page(405, 'Method Not Allowed', 'The method is not allowed for the requested URL.'),
};

/** The answer to OPTIONS on a known path. */
export const options: Answer = {
  status: 200,
  headers: { 'content-type': HTML, allow: 'POST, OPTIONS' },
  body: '',
};

function page(status: number, title: string, text: string): string {
  return `<!doctype html>\n<html lang=en>\n<title>${status} ${title}</title>\n<h1>${title}</h1>\n<p>${text}</p>\n`;
}
