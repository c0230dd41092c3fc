//! Chance that can be repeated, and how long a fault test may go on.

use std::time::Duration;

/// Names the seed of a run that is to be repeated.
const SEED: &str = "SMS_BROADCASTER_SEED";

/// How many seconds the long fault tests may take together; `./test --chaos` sets it.
const BUDGET: &str = "SMS_BROADCASTER_CHAOS_SECONDS";

/// A source of chance for the test `name`. Its seed is shown when the test fails, and
/// `SMS_BROADCASTER_SEED` repeats it.
pub(crate) fn seeded(name: &str) -> fastrand::Rng {
    let given = std::env::var(SEED).ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("{name}: repeat with {SEED}={seed}");
    fastrand::Rng::with_seed(seed)
}

/// Whether this is the long run.
pub(crate) fn is_chaos() -> bool {
    std::env::var_os(BUDGET).is_some()
}

/// How long a fault test goes on: `short`, or `part` of the budget when that is given and longer. All
/// parts together make less than one: settling and the check take time too.
pub(crate) fn duration(short: Duration, part: f64) -> Duration {
    let budget = std::env::var(BUDGET).ok().and_then(|text| text.parse().ok()).map(Duration::from_secs);
    budget.map_or(short, |budget| budget.mul_f64(part).max(short))
}
