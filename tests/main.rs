//! All tests that need more than one module, in one program.

mod embedded_queue;
mod queue_contract;
mod support;
