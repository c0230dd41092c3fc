//! What the store's doctor finds, does and leaves.

use std::time::Duration;

use crate::queue::contract::{QueueAdmin, QueueError};

/// How often something must be found, one look after the other, to be a finding.
const LOOKS: usize = 3;

/// Between two looks: what a service at work had just taken from one place and not yet put into another is
/// where it belongs by then.
const PAUSE: Duration = Duration::from_millis(200);

/// A line each, without texts and people.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Examination {
    /// What is not as it must be.
    pub findings: Vec<String>,
    /// What was done about it; empty unless a repair was asked for.
    pub done: Vec<String>,
    /// What is still not as it must be, after a repair.
    pub left: Vec<String>,
    /// Whether the store held what it must when it was last looked at.
    pub is_sound: bool,
}

/// Looks whether the store holds what it must, and with `repair` puts right what it can. The service may be
/// at work meanwhile.
///
/// # Errors
///
/// When the store cannot be asked. A repair that was broken off can be repeated.
pub async fn examine(store: &dyn QueueAdmin, repair: bool) -> Result<Examination, QueueError> {
    let findings = lasting(store).await?;
    if findings.is_empty() || !repair {
        let is_sound = findings.is_empty();
        return Ok(Examination { findings, is_sound, ..Examination::default() });
    }
    let done = store.repair().await?;
    let left = lasting(store).await?;
    let is_sound = left.is_empty();
    Ok(Examination { findings, done, left, is_sound })
}

/// What the audit finds again and again.
async fn lasting(store: &dyn QueueAdmin) -> Result<Vec<String>, QueueError> {
    let mut found = store.audit().await?;
    for _ in 1..LOOKS {
        if found.is_empty() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        let again = store.audit().await?;
        found.retain(|finding| again.contains(finding));
    }
    Ok(found)
}
