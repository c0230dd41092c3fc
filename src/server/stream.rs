//! A connection that nobody can hold by not sending or not reading, and whose last answer is read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::limits::Limits;

/// Bytes read at a time of what nobody wants any more.
const SCRAP: usize = 16 * 1024;

/// Whose turn it is on a connection: the client's, to send a request's head, or ours, to answer it. It is
/// even while it is the client's, and grows with every change.
#[derive(Clone, Default)]
pub(super) struct Turn(Arc<AtomicUsize>);

impl Turn {
    /// Takes the turn until the guard is dropped.
    pub(super) fn take(&self) -> OurTurn {
        self.0.fetch_add(1, Ordering::Relaxed);
        OurTurn(self.clone())
    }

    fn now(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// It is our turn.
pub(super) struct OurTurn(Turn);

impl Drop for OurTurn {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Wraps a connection with three bounds.
///
/// A head that is begun must be complete within `head`; how long a connection may be idle is the server's
/// affair. A write that makes no progress for `write` fails. And a close is first said, then waited out: while the
/// client still sends, closing would make the kernel reset the connection, and the client would lose an
/// answer that says why (a 413, say) before reading it. So what it sends is read and thrown away until it
/// closes too, for at most `linger`.
pub(super) struct PatientStream<S> {
    inner: S,
    turn: Turn,
    head: Duration,
    write: Duration,
    linger: Duration,
    /// The turn that the two below are about.
    seen: usize,
    /// Whether the client has begun a head; a new connection is expected to.
    begun: bool,
    /// When a head that is not complete is given up.
    late: Option<Pin<Box<Sleep>>>,
    /// When the write that makes no progress fails.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Set once the close is said: when it is no longer waited for.
    closing: Option<Pin<Box<Sleep>>>,
}

impl<S> PatientStream<S> {
    pub(super) fn new(inner: S, turn: Turn, limits: Limits) -> Self {
        let Limits { head, write, linger, .. } = limits;
        let (seen, begun) = (turn.now(), true);
        Self { inner, turn, head, write, linger, seen, begun, late: None, stalled: None, closing: None }
    }

    /// Passes on how a read went, unless it is for a head that takes too long.
    fn arrived(
        &mut self,
        context: &mut Context<'_>,
        how: Poll<io::Result<()>>,
        bytes: usize,
    ) -> Poll<io::Result<()>> {
        let turn = self.turn.now();
        if turn != self.seen {
            (self.seen, self.begun, self.late) = (turn, false, None);
        }
        let is_ours = turn % 2 == 1;
        if is_ours || how.is_ready() {
            self.begun |= !is_ours && bytes > 0;
            return how;
        }
        if !self.begun {
            return Poll::Pending;
        }
        let head = self.head;
        let late = self.late.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + head)));
        ready!(late.as_mut().poll(context));
        Poll::Ready(Err(self.out_of_patience()))
    }

    /// Passes on how a write went, unless it has made no progress for too long.
    fn progressed<T>(&mut self, context: &mut Context<'_>, how: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if how.is_ready() {
            self.stalled = None;
            return how;
        }
        let write = self.write;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + write)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(self.out_of_patience()))
    }

    /// Whoever was waited for in vain is not waited for once more at the close.
    fn out_of_patience(&mut self) -> io::Error {
        self.linger = Duration::ZERO;
        io::ErrorKind::TimedOut.into()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PatientStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let how = Pin::new(&mut self.inner).poll_read(context, buffer);
        self.arrived(context, how, buffer.filled().len() - before)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for PatientStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let how = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.progressed(context, how)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let how = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.progressed(context, how)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let how = Pin::new(&mut self.inner).poll_flush(context);
        self.progressed(context, how)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.closing.is_none() {
            ready!(Pin::new(&mut this.inner).poll_shutdown(context))?;
        }
        let linger = this.linger;
        let closing = this.closing.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + linger)));
        let mut scrap = [0; SCRAP];
        loop {
            if closing.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(&mut scrap);
            match ready!(Pin::new(&mut this.inner).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                // Closed at the other end as well, one way or the other.
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::timeout;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(60);

    fn limits() -> Limits {
        Limits { head: LONG, write: LONG, linger: LONG, ..Limits::default() }
    }

    fn patient<S>(inner: S, limits: Limits) -> PatientStream<S> {
        PatientStream::new(inner, Turn::default(), limits)
    }

    #[tokio::test]
    async fn a_write_that_makes_no_progress_fails() {
        let (near, far) = duplex(8);
        let mut near = patient(near, Limits { write: MOMENT, ..limits() });
        let wrote = timeout(LONG, near.write_all(b"more than fits")).await.expect("it hangs");
        let error = wrote.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(far);
    }

    #[tokio::test]
    async fn a_write_that_makes_some_progress_goes_on() {
        let (near, mut far) = duplex(8);
        let mut near = patient(near, limits());
        let mut received = [0; 100];
        let (wrote, read) = tokio::join!(near.write_all(&[b'x'; 100]), far.read_exact(&mut received));
        assert!(wrote.is_ok() && read.is_ok());
        assert!(near.stalled.is_none(), "the next write has the whole time again");
    }

    #[tokio::test]
    async fn a_close_is_said_at_once_and_waited_out_while_the_client_still_sends() {
        let (near, mut far) = duplex(8);
        let mut near = patient(near, limits());
        near.write_all(b"413").await.unwrap();
        let client = async {
            far.write_all(&[b'x'; 1000]).await.unwrap();
            let mut answer = Vec::new();
            far.read_to_end(&mut answer).await.unwrap();
            drop(far);
            answer
        };
        // Neither side can end before the other has done its part.
        let both = async { tokio::join!(near.shutdown(), client) };
        let (closed, answer) = timeout(LONG, both).await.expect("it hangs");
        assert_eq!((closed.is_ok(), &answer[..]), (true, &b"413"[..]));
    }

    #[tokio::test]
    async fn a_client_that_never_closes_is_waited_for_so_long_and_no_longer() {
        let (near, mut far) = duplex(8);
        let mut near = patient(near, Limits { linger: MOMENT, ..limits() });
        let endless = async {
            while far.write_all(b"x").await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        let closing = async {
            near.shutdown().await.unwrap();
            drop(near);
        };
        let both = async { tokio::join!(closing, endless) };
        timeout(LONG, both).await.expect("it hangs");
    }

    #[tokio::test]
    async fn a_head_is_waited_for_once_it_has_begun_and_a_body_or_an_idle_client_is_not_timed() {
        let (near, mut far) = duplex(64);
        let turn = Turn::default();
        let mut near = PatientStream::new(near, turn.clone(), Limits { head: MOMENT, ..limits() });
        let mut bytes = [0; 8];
        for length in [2, 3] {
            far.write_all(&bytes[..length]).await.unwrap();
            assert_eq!(near.read(&mut bytes).await.unwrap(), length);
            // The head was complete; what follows is body, then nothing.
            let ours = turn.take();
            assert!(timeout(MOMENT * 3, near.read(&mut bytes)).await.is_err());
            drop(ours);
            assert!(timeout(MOMENT * 3, near.read(&mut bytes)).await.is_err());
        }
        far.write_all(b"G").await.unwrap();
        assert_eq!(near.read(&mut bytes).await.unwrap(), 1);
        let error = timeout(LONG, near.read(&mut bytes)).await.expect("it hangs").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_new_connection_is_expected_to_begin() {
        let (near, _far) = duplex(64);
        let mut near = patient(near, Limits { head: MOMENT, ..limits() });
        let error = timeout(LONG, near.read(&mut [0; 8])).await.expect("it hangs").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
