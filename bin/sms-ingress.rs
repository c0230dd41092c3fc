//! sms-ingress: the webhook receiver alone.

use std::process::ExitCode;

use mimalloc::MiMalloc;
use sms_broadcaster::cli::Roles;

/// A fifth of a worker's instructions were the C library's allocator (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    sms_broadcaster::cli::single_role(Roles { ingress: true, worker: false })
}
