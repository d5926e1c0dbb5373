/** The channel of a target's messages; of one participant store's alone where `storeId` is given (R3). */
export function channelOf(target: string, storeId: string | null): string {
	return storeId === null ? `tx-${target}` : `tx-${target}.${storeId}`;
}

/** The dead-letter queue of a channel. */
export function deadLettersOf(channel: string): string {
	return `${channel}.dead`;
}
