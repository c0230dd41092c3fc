//! Slack incoming webhooks.

use std::time::Duration;

/// Settings of the `slack` channel.
#[derive(Clone, Debug)]
pub struct SlackSettings {
    /// The longest one attempt may take, connection and answer included.
    pub timeout: Duration,
}
