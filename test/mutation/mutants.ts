import { stripTypeScriptTypes } from 'node:module';

/** One small change to a source file that the tests of its room should notice. */
export interface Mutant {
  /** where the change begins, in the text of {@link Source} */
  readonly at: number;
  readonly length: number;
  readonly text: string;
  /** from 1 */
  readonly line: number;
  /** for a reader: the line as it was, and what became of it */
  readonly change: string;
}

const TURNED: Record<string, readonly string[]> = {
  '===': ['!=='],
  '!==': ['==='],
  '<': ['<=', '>='],
  '<=': ['<', '>'],
  '>': ['>=', '<='],
  '>=': ['>', '<'],
  '&&': ['||'],
  '||': ['&&'],
  '??': ['&&'],
  '+': ['-'],
  '-': ['+'],
  '*': ['/'],
  '/': ['*'],
  '%': ['+'],
  '+=': ['-='],
  '-=': ['+='],
  '++': ['--'],
  '--': ['++'],
  true: ['false'],
  false: ['true'],
};

/** Operators that stand between spaces, as the formatter sets them, those that do not, and words. */
const OPERATOR = /(?<= )(?:[!=]==|[<>]=?|&&|\|\||\?\?|[-+*/%]|[-+]=)(?= |$)|\+\+|--|\b(?:true|false)\b/gm;
const INTEGER = /(?<![\w.#$])(?:0x[\da-f]+|\d[\d_]*)n?(?![\w.])/gi;
/** Of what tells a sort which comes first only the sign counts. */
const ORDER = /\? -1 : 1\b/g;
const CONDITION = /\bif \(/g;
const EARLY_END = /^ *(?:if \(.*\) )?(?:return\b.*|continue);$/gm;
const CALL = /^ *(?:void |await )?(?!return\b|throw\b|if\b|super\b)[\w#.?!]+\(.*\);$/gm;
const DEBUG = /\.(?:debug|trace)\(/;

/**
 * All mutants of a file. Types, comments and the texts of strings are left alone.
 *
 * @param source TypeScript that Node can run by stripping its types
 */
export function mutantsOf(source: string): Mutant[] {
  const code = mask(stripTypeScriptTypes(source));
  const found: Mutant[] = [];
  const add = (at: number, length: number, text: string) => {
    const start = source.lastIndexOf('\n', at - 1) + 1;
    const end = source.indexOf('\n', at);
    const before = source.slice(start, end);
    const after = source.slice(start, at) + text + source.slice(at + length, Math.max(end, at + length));
    const line = source.slice(0, start).split('\n').length;
    found.push({ at, length, text, line, change: `${before.trim()}  →  ${after.trim() || '(nothing)'}` });
  };
  for (const { 0: token, index } of code.matchAll(OPERATOR))
    for (const text of TURNED[token]!) add(index, token.length, text);
  for (const { 0: token, index } of code.replace(ORDER, (order) => ' '.repeat(order.length)).matchAll(INTEGER)) {
    const isBig = token.endsWith('n');
    add(index, token.length, `${BigInt(token.replace(/[_n]/g, '')) + 1n}${isBig ? 'n' : ''}`);
  }
  for (const { 0: token, index } of code.matchAll(CONDITION)) {
    const open = index + token.length - 1;
    const close = closing(code, open);
    add(open + 1, close - open - 1, `!(${source.slice(open + 1, close)})`);
  }
  for (const pattern of [EARLY_END, CALL]) {
    for (const { 0: token, index } of code.matchAll(pattern)) {
      // The last statement of a function is what it is there for: without it, it is another function.
      const isLastReturn = /^ *return /.test(token) && /^\s*\}/.test(code.slice(index + token.length));
      const hasElse = /^\s*else\b/.test(code.slice(index + token.length));
      if (isLastReturn || hasElse || DEBUG.test(token)) continue;
      const indent = token.length - token.trimStart().length;
      add(index + indent, token.length - indent, token.trimStart().startsWith('if') ? '' : ';');
    }
  }
  return found.sort((a, b) => a.at - b.at);
}

/** The source with the change made. */
export function mutated(source: string, { at, length, text }: Mutant): string {
  return source.slice(0, at) + text + source.slice(at + length);
}

/** Comments, strings and regular expressions as blanks of the same length; what stands in `${}` remains. */
export function mask(code: string): string {
  const out = code.split('');
  const blank = (from: number, to: number) => {
    for (let i = from; i < to; i++) if (out[i] !== '\n') out[i] = ' ';
  };
  /** Depths of braces at which a `${` was opened. */
  const templates: number[] = [];
  let depth = 0;
  for (let at = 0; at < code.length; at++) {
    const rest = code.slice(at, at + 2);
    const unit = code[at]!;
    let end = at;
    if (rest === '//') end = indexOr(code, '\n', at);
    else if (rest === '/*') end = indexOr(code, '*/', at) + 2;
    else if (unit === "'" || unit === '"') end = endOfText(code, at, unit);
    else if (unit === '/' && isRegExp(code, at)) end = endOfText(code, at, '/');
    else if (unit === '`' || (unit === '}' && templates.at(-1) === depth)) {
      if (unit === '}') templates.pop();
      end = endOfText(code, at, '`');
      if (code[end - 1] === '{') templates.push(depth);
    } else if (unit === '{') depth++;
    else if (unit === '}') depth--;
    if (end > at) {
      blank(at, end);
      at = end - 1;
    }
  }
  return out.join('');
}

function indexOr(code: string, what: string, from: number): number {
  const index = code.indexOf(what, from);
  return index < 0 ? code.length : index;
}

/** Behind the closing quote, or behind the `${` of a template. */
function endOfText(code: string, from: number, quote: string): number {
  let isClass = false;
  for (let at = from + 1; at < code.length; at++) {
    const unit = code[at];
    if (unit === '\\') at++;
    else if (quote === '/' && unit === '[') isClass = true;
    else if (quote === '/' && unit === ']') isClass = false;
    else if (unit === quote && !isClass) return at + 1;
    else if (quote === '`' && unit === '$' && code[at + 1] === '{') return at + 2;
  }
  return code.length;
}

function isRegExp(code: string, at: number): boolean {
  const before = code.slice(Math.max(0, at - 20), at).trimEnd();
  return before === '' || /[(,=:[!&|?{};>]$|\breturn$/.test(before);
}

function closing(code: string, open: number): number {
  let depth = 0;
  for (let at = open; at < code.length; at++) {
    if (code[at] === '(') depth++;
    else if (code[at] === ')' && --depth === 0) return at;
  }
  return code.length;
}
