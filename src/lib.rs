//! SMS Broadcaster: relays the login codes that reach one Twilio number to everybody who needs them.
//!
//! # How one message travels
//!
//! `Twilio` → [`ingress`] reads the raw request → [`source::twilio`] proves it → [`queue`] stores it, sealed → 200.
//! A [`worker`] claims it → [`code`] reads which one-time code it holds, and whose → [`subscribers`] say who gets it → the queue turns it into one delivery per
//! recipient, in one step → the worker claims each → [`template`] says what it says → a [`channel`] hands it
//! over and says what happened → [`retry`] says what to do about it → the queue records it.
//!
//! What [`code`] reads is a claim of whoever wrote the text: it chooses a subscriber only where the operator says so
//! (`service`), shortens a deadline only where he says so (`"auto"`), and holds nothing up.
//!
//! # Floors
//!
//! A module uses only modules that stand before it in this list (`tests/layers.rs` holds us to it):
//!
//! * 0 facts: [`clock`], [`trace`], [`message`], [`delivery`].
//! * 1 pure logic and measures: [`code`], [`forbidden`], [`document`], [`subscribers`], [`template`], [`seal`], [`retry`], [`quiet`], [`lines`], [`metrics`].
//! * 2 the two ports: [`queue::contract`], [`channel::contract`].
//! * 3 back-ends, channels, sources, sockets: the rest of [`queue`], [`channel`], [`source`], [`telemetry`], and [`server`].
//! * 4 services: [`ingress`], [`worker`], [`ops`], [`health`], [`admin`].
//! * 5 assembly, which alone knows every concrete type: [`config`], [`setup`], [`reload`], [`boot`], [`cli`], [`demo`], [`init`].

pub mod admin;
pub mod boot;
pub mod channel;
pub mod cli;
pub mod clock;
pub mod code;
pub mod config;
pub mod delivery;
pub mod demo;
pub mod document;
pub mod forbidden;
pub mod health;
pub mod ingress;
pub mod init;
pub mod lines;
pub mod message;
pub mod metrics;
pub mod ops;
pub mod queue;
pub mod quiet;
pub mod reload;
pub mod retry;
pub mod seal;
pub mod server;
pub mod setup;
pub mod source;
pub mod subscribers;
pub mod telemetry;
pub mod template;
pub mod trace;
pub mod worker;
