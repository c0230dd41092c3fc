//! What the command lines of all programs have in common.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser};

use crate::boot::{self, Roles};
use crate::config::{self, Config};
use crate::reload;

/// A usage or configuration error.
pub const USAGE: u8 = 2;

/// Flags of every service.
#[derive(Args, Clone, Debug)]
pub struct ServiceArgs {
    /// The configuration file [default: $SMS_BROADCASTER_CONFIG, ./sms-broadcaster.toml,
    /// /etc/sms-broadcaster/config.toml]
    #[arg(long, global = true, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Read the configuration, print it with secrets masked, and exit: 0 if it is good, 2 if not
    #[arg(long, global = true)]
    pub check_config: bool,
}

/// A program that runs one role.
#[derive(Parser, Debug)]
#[command(version)]
struct SingleRole {
    #[command(flatten)]
    service: ServiceArgs,
}

/// `main` of a program that does nothing but run `roles`.
pub fn single_role(roles: Roles) -> ExitCode {
    run(&SingleRole::parse().service, roles)
}

/// Loads the configuration and runs `roles`, or only checks it.
pub fn run(args: &ServiceArgs, roles: Roles) -> ExitCode {
    let Some(config) = load(args.config.as_deref()) else { return ExitCode::from(USAGE) };
    if args.check_config {
        if let Err(faults) = reload::load(&config) {
            faults.iter().for_each(|fault| eprintln!("{fault}"));
            return ExitCode::from(USAGE);
        }
        println!("{}", config.masked());
        return ExitCode::SUCCESS;
    }
    if roles.worker
        && let Err(faults) = reload::load(&config)
    {
        faults.iter().for_each(|fault| eprintln!("{fault}"));
        return ExitCode::from(USAGE);
    }
    boot::run_service(config, roles)
}

/// Finds and loads the configuration; says what is wrong with it.
pub fn load(flag: Option<&std::path::Path>) -> Option<Config> {
    let folder = std::env::current_dir().unwrap_or_default();
    let path = match config::find(flag, &config::process_environment, &folder) {
        Ok(path) => path,
        Err(error) => {
            eprintln!("{error}");
            return None;
        }
    };
    match Config::load(&path, &config::process_environment) {
        Ok(config) => Some(config),
        Err(faults) => {
            faults.iter().for_each(|fault| eprintln!("{fault}"));
            None
        }
    }
}
