//! What the tests share.

pub(crate) mod installation;
pub(crate) mod provider;
pub(crate) mod redis_server;
pub(crate) mod wire;
