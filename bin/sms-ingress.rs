//! sms-ingress: the webhook receiver alone.

use std::process::ExitCode;

use sms_broadcaster::cli::Roles;

fn main() -> ExitCode {
    sms_broadcaster::cli::single_role(Roles { ingress: true, worker: false })
}
