/** A check as it goes to a worker: signature, key and a message as long as a subscription's. */
export const MESSAGE_BYTES = 110;
export const CHECK_BYTES = 64 + 32 + MESSAGE_BYTES;
