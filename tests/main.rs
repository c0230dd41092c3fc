//! All tests that need more than one module, in one program.

mod channels;
mod cli;
mod config;
mod embedded_queue;
mod init;
mod subscribers;
mod support;
