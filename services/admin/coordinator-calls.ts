/**
 * Calls an action of the coordinator, by its name there, in this or another process.
 *
 * @param timeout milliseconds; the option `callTimeout` unless given
 */
export type CallCoordinator = <T>(action: string, params: object, timeout?: number) => Promise<T>;
