import http from 'node:http';

export interface HttpReply {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: string;
}

/**
 * Sends an HTTP request on a connection of its own: for Unix sockets, and for what fetch does not allow.
 *
 * @param where a URL, or what http.request takes instead
 * @param write sends the body and ends the request
 */
export function ask(
  where: string | http.RequestOptions,
  options: http.RequestOptions = {},
  write: (request: http.ClientRequest) => void = (request) => request.end(),
): Promise<HttpReply> {
  return new Promise((resolve, reject) => {
    const handle = (response: http.IncomingMessage): void => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => (body += chunk));
      response.on('error', reject);
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body }));
    };
    const all = { agent: false, ...options };
    const request =
      typeof where === 'string' ? http.request(where, all, handle) : http.request({ ...all, ...where }, handle);
    request.on('error', reject);
    write(request);
  });
}

/** Posts that body. */
export function post(where: string | http.RequestOptions, body: string): Promise<HttpReply> {
  return ask(where, { method: 'POST' }, (request) => request.end(body));
}
