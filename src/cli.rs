//! What the command lines of all programs have in common.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser};

use crate::boot;
use crate::config::{self, Config, process_environment};
use crate::document::Fault;
use crate::health;
use crate::setup;
use crate::subscribers::Subscribers;

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
    /// Ask the service that runs on this configuration whether it is ready, and exit: 0 if it is, 1 if
    /// not. Meant for health checks of containers
    #[arg(long, global = true, conflicts_with = "check_config")]
    pub health: bool,
}

/// A program that runs one role.
#[derive(Parser, Debug)]
#[command(version)]
struct SingleRole {
    #[command(flatten)]
    service: ServiceArgs,
}

/// What a program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Receives webhooks.
    pub ingress: bool,
    /// Routes and delivers.
    pub worker: bool,
}

/// `main` of a program that does nothing but run `roles`.
pub fn single_role(roles: Roles) -> ExitCode {
    run(&SingleRole::parse().service, roles)
}

/// Loads the configuration and runs `roles`, or only checks it, or asks who runs on it.
pub fn run(args: &ServiceArgs, roles: Roles) -> ExitCode {
    if args.health {
        return ask_for_health(args);
    }
    match prepared(args, roles) {
        Ok((config, _)) if args.check_config => {
            println!("{}", config.masked());
            ExitCode::SUCCESS
        }
        Ok((config, worker)) => boot::run_service(config, boot::Roles { ingress: roles.ingress, worker }),
        Err(faults) => {
            faults.iter().for_each(|fault| eprintln!("{fault}"));
            ExitCode::from(USAGE)
        }
    }
}

/// Says whether the service that runs on this configuration is ready.
fn ask_for_health(args: &ServiceArgs) -> ExitCode {
    let config = match configuration(args) {
        Ok(config) => config,
        Err(faults) => {
            faults.iter().for_each(|fault| eprintln!("{fault}"));
            return ExitCode::from(USAGE);
        }
    };
    match health::ask(config.ops_listen) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn lines(faults: Vec<Fault>) -> Vec<String> {
    faults.iter().map(ToString::to_string).collect()
}

fn configuration(args: &ServiceArgs) -> Result<Config, Vec<String>> {
    let folder = std::env::current_dir().unwrap_or_default();
    let path = config::find(args.config.as_deref(), &process_environment, &folder)
        .map_err(|error| vec![error.to_string()])?;
    Config::load(&path, &process_environment).map_err(lines)
}

/// The configuration, and the subscribers where they are needed: for a worker, and for a check. Or what
/// is wrong with either, in lines for people.
fn prepared(args: &ServiceArgs, roles: Roles) -> Result<(Config, Option<Subscribers>), Vec<String>> {
    let config = configuration(args)?;
    let subscribers = (roles.worker || args.check_config)
        .then(|| setup::subscribers(&config, &process_environment))
        .transpose()
        .map_err(lines)?;
    Ok((config, subscribers))
}
