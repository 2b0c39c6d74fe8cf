/** A request that has come in whole, over HTTP/1.1 or HTTP/2. */
export interface WebRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly body: string;
}

/** What to answer. */
export interface WebAnswer {
  /** 200 unless given. */
  readonly status?: number;
  /** Sent as JSON, or as it is if a string. */
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  /** Never answer. */
  readonly hang?: boolean;
  /** Cut the TCP connection. */
  readonly cut?: boolean;
  /** Send half of the body, then cut. */
  readonly truncate?: boolean;
}

/** The form of an answer's body, and its type. */
export function bodyOf(answer: WebAnswer): { text: string; type: string } {
  const { body = '' } = answer;
  if (typeof body !== 'string') return { text: JSON.stringify(body), type: 'application/json; charset=UTF-8' };
  return { text: body, type: body.startsWith('<') ? 'text/html; charset=UTF-8' : 'application/json; charset=UTF-8' };
}

/** A page as providers' gateways send it when the service behind them does not answer. */
export const HTML_PAGE = '<!DOCTYPE html><html><title>Error</title><body>That is an error.</body></html>';
