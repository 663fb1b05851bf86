/**
 * Doing all of something although a part of it fails.
 *
 * @module
 */

/** Does something to every item, one after the other, and throws the first error at the end. */
export async function tryEach<T>(
  items: Iterable<T>,
  act: (item: T) => Promise<unknown> | void,
): Promise<void> {
  const errors: unknown[] = [];
  for (const item of items) {
    try {
      await act(item);
    } catch (error) {
      errors.push(error);
    }
  }
  if (errors.length > 0) throw errors[0];
}

/** Takes every step, in order, and throws the first error at the end. */
export function trySteps(...steps: readonly (() => Promise<unknown> | void)[]): Promise<void> {
  return tryEach(steps, (step) => step());
}
