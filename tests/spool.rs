//! Messages that arrive while Redis is away or full, and their way to it afterwards.

mod beside_redis;
mod services;
