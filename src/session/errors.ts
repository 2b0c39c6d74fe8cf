/** The codes of an answer to push.subscribe and push.unsubscribe (docs/spec/hivemind.md, section 1.1). */
export const Code = {
  OK: 0,
  BAD_INPUT: 1,
  SERVICE_NOT_AVAILABLE: 2,
  SERVICE_TIMEOUT: 3,
  ERROR: 4,
  INTERNAL_ERROR: 5,
} as const;

/** A request that is answered with an error: its code, and the message as the client will read it. */
export class RequestError extends Error {
  override readonly name = 'RequestError';
  /** One of {@link Code}, or whatever else a notifier answered with. */
  readonly code: number;

  /**
   * @param code one of {@link Code}, or whatever else a notifier answered with
   * @param message for the client
   * @param options `cause`: what goes into our log but not to the client
   */
  constructor(code: number, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** A request for a service that has no notifier now. */
export class UnavailableError extends RequestError {
  readonly service: string;

  constructor(service: string) {
    super(Code.SERVICE_NOT_AVAILABLE, `${service} notification service not currently available`);
    this.service = service;
  }
}

/** A request that is refused only for its time: by a clock other than ours it might be valid. */
export class UntimelyError extends RequestError {}
