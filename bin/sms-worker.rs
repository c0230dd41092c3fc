//! sms-worker: the consumer alone; run as many as you like on the same store.

use std::process::ExitCode;

use sms_broadcaster::cli::Roles;

fn main() -> ExitCode {
    sms_broadcaster::cli::single_role(Roles { ingress: false, worker: true })
}
