//! smsctl: the operator's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    eprintln!("smsctl is not available in this version");
    ExitCode::from(sms_broadcaster::cli::USAGE)
}
