//! All tests that need more than one module, in one program.

mod channels;
mod cli;
mod config;
mod crash;
mod delivery;
mod embedded_queue;
mod fuzz_targets;
mod health;
mod ingress;
mod init;
mod layers;
mod metrics_table;
mod moving;
mod queue_contract;
mod recognition;
mod redis_queue;
mod sealing;
mod server;
mod services;
mod shipped_files;
mod signature_vectors;
mod spool;
mod subscribers;
mod support;
mod telemetry;
