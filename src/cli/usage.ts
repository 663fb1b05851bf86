/**
 * Wrong usage of the command line: exit code 2, as opposed to a command that failed.
 *
 * @module
 */

/** A command line that cannot be understood. */
export class UsageError extends Error {
  readonly code = "USAGE";
  override readonly name = "UsageError";
}
