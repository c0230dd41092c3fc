//! Which file is the configuration, and what `${NAME}` means to a real process.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::document::Environment;

/// The environment variable that names the configuration file.
pub const CONFIG_VARIABLE: &str = "SMS_BROADCASTER_CONFIG";

/// Name of the configuration file in the working directory.
pub const FILE_NAME: &str = "sms-broadcaster.toml";

/// Where the configuration of the machine is.
const SYSTEM_FILE: &str = "/etc/sms-broadcaster/config.toml";

/// There is no configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "no configuration: give --config PATH, set {CONFIG_VARIABLE}, or make ./{FILE_NAME} \
     (`sms-broadcaster init` does) or {SYSTEM_FILE}"
)]
pub struct NoFile;

/// The configuration file: the one of `--config`, else of `$SMS_BROADCASTER_CONFIG`, else
/// `sms-broadcaster.toml` in the working directory `cwd`, else `/etc/sms-broadcaster/config.toml`.
///
/// A file that was named is taken at its word, there or not. An empty variable names nothing.
pub fn find(flag: Option<&Path>, env: &Environment<'_>, cwd: &Path) -> Result<PathBuf, NoFile> {
    if let Some(path) = flag {
        return Ok(path.to_owned());
    }
    if let Some(path) = env(CONFIG_VARIABLE).filter(|path| !path.is_empty()) {
        return Ok(PathBuf::from(path));
    }
    let candidates = [cwd.join(FILE_NAME), PathBuf::from(SYSTEM_FILE)];
    candidates.into_iter().find(|path| path.exists()).ok_or(NoFile)
}

/// Looks `name` up in the environment of this process. A value that is not Unicode is not there.
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
