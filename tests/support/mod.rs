//! What the tests share.

pub(crate) mod certificates;
pub(crate) mod chance;
pub(crate) mod cluster;
pub(crate) mod collector;
pub(crate) mod figures;
pub(crate) mod installation;
pub(crate) mod ledger;
pub(crate) mod ports;
pub(crate) mod pretend_redis;
pub(crate) mod provider;
pub(crate) mod proxy;
pub(crate) mod redis_server;
pub(crate) mod sentinels;
pub(crate) mod waiting;
pub(crate) mod wire;
