//! sms-broadcaster: ingress and worker in one process; also `demo` and `init`.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sms_broadcaster::cli::{Roles, ServiceArgs};
use sms_broadcaster::{cli, demo, init};

/// Relays the login codes that reach one Twilio number to everybody who needs them.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    service: ServiceArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Receive webhooks and deliver, in one process (the default)
    Run,
    /// Show it all at work without an account: stand-ins for Twilio and Slack on this machine
    Demo {
        /// End once the example message arrived everywhere
        #[arg(long)]
        once: bool,
    },
    /// Write a starter sms-broadcaster.toml and subscribers.toml
    Init(init::InitArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        None | Some(Command::Run) => cli::run(&cli.service, Roles { ingress: true, worker: true }),
        Some(Command::Demo { once }) => demo::run(once),
        Some(Command::Init(args)) => {
            let stdin = std::io::stdin();
            let terminal = stdin.is_terminal();
            let mut input = stdin.lock();
            let (mut output, mut errors) = (std::io::stdout(), std::io::stderr());
            ExitCode::from(init::run(&args, &mut input, &mut output, &mut errors, terminal))
        }
    }
}
