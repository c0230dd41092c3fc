//! What the client's errors mean for a caller, and for the connection they came by.

use std::error::Error;
use std::sync::Arc;

use deadpool_redis::PoolError;
use redis::{ErrorKind, RedisError};

use crate::queue::contract::QueueError;

/// Codes by which a server says that it is not the one to talk to, or not now. The connection is
/// dropped: the next one may lead to another server (behind a name, a proxy).
const NOT_HERE: &[&str] = &["READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "UNBLOCKED", "MOVED"];

/// Codes by which a node of a cluster says that our keys are another's, or on their way to another, or that it does
/// not know whose they are: a moment later somebody has them.
const ON_THE_WAY: &[&str] = &["MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"];

/// Codes by which a server says that it takes nothing new.
const NO_ROOM: &[&str] = &["OOM", "MISCONF"];

/// What an error says about the connection it came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// Nothing: the server answered.
    None,
    /// No answer came in time; the connection may still be good.
    Silence,
    /// It must not be used again.
    Connection,
}

pub(super) fn blame(error: &RedisError) -> Blame {
    if error.is_timeout() {
        return Blame::Silence;
    }
    match error.kind() {
        ErrorKind::Io | ErrorKind::Parse | ErrorKind::AuthenticationFailed => Blame::Connection,
        _ if error.code().is_some_and(|code| NOT_HERE.contains(&code)) => Blame::Connection,
        _ => Blame::None,
    }
}

/// Whether the server did nothing because keys are on their way from one to another.
pub(super) fn is_on_the_way(error: &RedisError) -> bool {
    error.code().is_some_and(|code| ON_THE_WAY.contains(&code))
}

/// The caller's view of an error. The texts are ours: the server's may repeat what it was sent.
pub(super) fn queue_error(error: &RedisError) -> QueueError {
    match error.code() {
        Some(code) if NO_ROOM.contains(&code) => QueueError::Exhausted(describe(error)),
        _ => QueueError::Unavailable(describe(error)),
    }
}

/// One short text for people, without address, key or value.
pub(super) fn describe(error: &RedisError) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    if error.is_connection_refusal() {
        return "connection refused".to_owned();
    }
    if let Some(rustls::Error::InvalidCertificate(why)) = tls_error(error) {
        return format!("the server's certificate is not accepted ({})", certificate_fault(why));
    }
    match error.kind() {
        ErrorKind::Io if tls_error(error).is_some() => "the server does not speak TLS as we do".to_owned(),
        ErrorKind::Io => "the connection broke".to_owned(),
        ErrorKind::AuthenticationFailed => "the server refuses our name or password".to_owned(),
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => "an answer was not understood".to_owned(),
        _ => match error.code() {
            Some("OOM") => "the server is out of memory (OOM)".to_owned(),
            Some("MISCONF") => "the server cannot save to its disk (MISCONF)".to_owned(),
            Some("READONLY") => "the server is a replica (READONLY)".to_owned(),
            Some("ASK" | "TRYAGAIN") => "our keys are on their way to another node".to_owned(),
            Some("MOVED") => "our keys are on another node (MOVED)".to_owned(),
            Some("LOADING") => "the server is loading its data (LOADING)".to_owned(),
            Some(code) => match script_line(error.detail()) {
                Some(line) => format!("the server answered {code} in line {line} of a script"),
                None => format!("the server answered {code}"),
            },
            None => "the client failed".to_owned(),
        },
    }
}

/// What went wrong with TLS, if that is what went wrong.
fn tls_error(error: &RedisError) -> Option<&rustls::Error> {
    // The client shares what caused its errors.
    let cause: &Arc<dyn Error + Send + Sync> = error.source()?.downcast_ref()?;
    let io: &std::io::Error = cause.downcast_ref()?;
    io.get_ref()?.downcast_ref()
}

/// Without the names that a certificate bears.
fn certificate_fault(why: &rustls::CertificateError) -> &'static str {
    use rustls::CertificateError as Fault;
    match why {
        Fault::UnknownIssuer | Fault::BadSignature => "nobody we trust vouches for it",
        Fault::NotValidForName | Fault::NotValidForNameContext { .. } => "it is another host's",
        Fault::Expired | Fault::ExpiredContext { .. } => "it has expired",
        Fault::NotValidYet | Fault::NotValidYetContext { .. } => "it is not valid yet",
        _ => "it is not valid",
    }
}

/// The line of the script that failed, which the server appends to the error.
fn script_line(detail: Option<&str>) -> Option<u32> {
    let (_, rest) = detail?.split_once("user_script:")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// Why no connection could be had.
pub(super) fn describe_pool(error: &PoolError) -> String {
    match error {
        PoolError::Backend(error) => describe(error),
        PoolError::Timeout(_) => "no connection in time".to_owned(),
        PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
            "no connection can be made".to_owned()
        }
    }
}

/// The error for an answer that is not what its script promises.
pub(super) fn not_understood() -> QueueError {
    QueueError::Unavailable("an answer was not understood".to_owned())
}

#[cfg(test)]
mod tests {
    use redis::make_extension_error;

    use super::*;

    fn server(code: &str, detail: &str) -> RedisError {
        make_extension_error(code.to_owned(), Some(detail.to_owned()))
    }

    #[test]
    fn a_full_server_is_exhausted_and_every_other_is_unavailable() {
        assert!(matches!(queue_error(&server("OOM", "x")), QueueError::Exhausted(_)));
        assert!(matches!(queue_error(&server("MISCONF", "x")), QueueError::Exhausted(_)));
        assert!(matches!(queue_error(&server("WRONGTYPE", "x")), QueueError::Unavailable(_)));
    }

    #[test]
    fn what_the_server_says_is_not_repeated() {
        let error = server("WRONGTYPE", "key +14443332222 script: ab, on @user_script:12.");
        assert_eq!(describe(&error), "the server answered WRONGTYPE in line 12 of a script");
        assert_eq!(describe(&server("NOPERM", "user hunter2")), "the server answered NOPERM");
    }

    #[test]
    fn a_connection_to_the_wrong_server_is_dropped_and_one_to_a_full_server_is_not() {
        assert_eq!(blame(&server("UNBLOCKED", "")), Blame::Connection);
        assert_eq!(blame(&server("OOM", "")), Blame::None);
        let broken = RedisError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!(blame(&broken), Blame::Connection);
        let silent = RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
        assert_eq!(blame(&silent), Blame::Silence);
    }
}
