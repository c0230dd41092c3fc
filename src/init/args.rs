//! The flags of `init`.

use std::fmt;
use std::path::PathBuf;

use clap::Args;

/// Writes a starter sms-broadcaster.toml and subscribers.toml, never over existing ones.
///
/// On a terminal it asks for what is missing. Secrets are never written: the files refer to environment
/// variables, and the command says which to set.
#[derive(Args, Clone)]
pub struct InitArgs {
    /// Folder for the two files
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Public address that Twilio will call, such as <https://mfa.example.com>
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,
    /// Twilio account SID: AC and 32 digits
    #[arg(long, value_name = "SID")]
    pub account_sid: Option<String>,
    /// Number that texts are sent from, or a messaging service (MG...)
    #[arg(long, value_name = "NUMBER")]
    pub from: Option<String>,
    /// Name shown in the texts that are passed on [default: MFA]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Phone to pass texts on to; may be repeated
    #[arg(long, value_name = "PHONE")]
    pub sms: Vec<String>,
    /// Slack incoming webhook to pass texts on to; may be repeated. Only a reference to it is written; `${NAME}` is taken as
    /// one
    #[arg(long, value_name = "URL")]
    pub slack: Vec<String>,
    /// Never ask, even on a terminal
    #[arg(long)]
    pub yes: bool,
}

impl fmt::Debug for InitArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Webhooks are secrets, and numbers are people's.
        f.debug_struct("InitArgs").field("dir", &self.dir).field("yes", &self.yes).finish_non_exhaustive()
    }
}
