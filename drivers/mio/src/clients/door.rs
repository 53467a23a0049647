//! A listener in the poll of the loop, and the places for those who come in.

use std::io;
use std::time::{Duration, Instant};

use mio::{Interest, Registry, Token};

use super::listener::{Listener, Stream};
use crate::shown;

/// After how long clients are accepted again where the system has refused that, as it does without free descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Most clients that are accepted in one turn of the loop.
const ACCEPTS_PER_TURN: usize = 16;

/// A listener, and the tokens of its clients, which follow its own.
#[derive(Debug)]
pub(crate) struct Door {
    listener: Listener,
    registry: Registry,
    token: Token,
    /// The most clients at a time.
    places: usize,
    /// From when on there may be clients to accept; nothing if there are none.
    newcomers_since: Option<Instant>,
}

impl Door {
    /// Opens a listener for so many clients at a time.
    pub(crate) fn open(
        mut listener: Listener,
        registry: Registry,
        token: Token,
        places: usize,
    ) -> io::Result<Self> {
        registry.register(listener.source(), token, Interest::READABLE)?;
        Ok(Self { listener, registry, token, places, newcomers_since: Some(Instant::now()) })
    }

    /// Makes the file of the listener anew if somebody has removed it. Returns the clients that have connected before that, and were not
    /// accepted yet.
    pub(crate) fn restore(&mut self) -> Vec<Stream> {
        let Some(lost) = self.listener.lost_file() else { return Vec::new() };
        let path = shown::path(lost.path()).to_string();
        let restored = Listener::in_place_of(lost).and_then(|mut listener| {
            self.registry.register(listener.source(), self.token, Interest::READABLE)?;
            Ok(listener)
        });
        match restored {
            Ok(listener) => {
                let mut before = std::mem::replace(&mut self.listener, listener);
                if let Err(error) = self.registry.deregister(before.source()) {
                    log::debug!("a socket could not be taken out of the poll: {error}");
                }
                self.newcomers_since = Some(Instant::now());
                log::info!("the socket {path} was gone, and is made anew");
                // No more can come: its path is that of the other one.
                std::iter::from_fn(|| before.accept().ok()).collect()
            }
            Err(error) => {
                log::warn!(
                    "the socket {path} is gone, so nobody can connect, and it cannot be made anew: {error}; remove what is in the \
                     way, and reload or restart the daemon"
                );
                Vec::new()
            }
        }
    }

    /// Returns whether a token is that of the listener or of one of its clients.
    pub(crate) fn owns(&self, token: Token) -> bool {
        (self.token.0..=self.token.0 + self.places).contains(&token.0)
    }

    /// Takes in an event of the listener; does nothing for other tokens.
    pub(crate) fn on_event(&mut self, token: Token) {
        if token == self.token {
            self.newcomers_since = Some(Instant::now());
        }
    }

    /// Returns from when on there may be clients to accept; nothing if the poll tells when.
    pub(crate) fn newcomers_since(&self) -> Option<Instant> {
        self.newcomers_since
    }

    /// Returns whether there may be clients to accept now.
    pub(crate) fn has_newcomers(&self, now: Instant) -> bool {
        self.newcomers_since.is_some_and(|since| since <= now)
    }

    /// Accepts clients, as many as one turn of the loop may.
    pub(crate) fn accept(&mut self, now: Instant) -> Vec<Stream> {
        let mut accepted = Vec::new();
        if !self.has_newcomers(now) {
            return accepted;
        }
        self.newcomers_since = None;
        for _ in 0..ACCEPTS_PER_TURN {
            match self.listener.accept() {
                Ok(stream) => accepted.push(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return accepted,
                // It has gone meanwhile. Others may wait behind it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                // The poll tells of those who wait only once.
                Err(error) => {
                    self.newcomers_since = Some(now + ACCEPT_PAUSE);
                    log::debug!("a client cannot be accepted: {error}");
                    return accepted;
                }
            }
        }
        self.newcomers_since = Some(now);
        accepted
    }

    /// Gives a client a token that is free, and lets the poll tell of it. Returns nothing if there is none.
    pub(crate) fn admit(&self, stream: &mut Stream, is_taken: impl Fn(Token) -> bool) -> Option<Token> {
        let mut tokens = (self.token.0 + 1..=self.token.0 + self.places).map(Token);
        let token = tokens.find(|token| !is_taken(*token))?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = self.registry.register(stream.source(), token, interest);
        registered.inspect_err(|error| log::debug!("a client cannot be polled: {error}")).ok()?;
        Some(token)
    }

    /// Takes a client out of the poll.
    pub(crate) fn dismiss(&self, stream: &mut Stream) {
        if let Err(error) = self.registry.deregister(stream.source()) {
            log::debug!("a client could not be taken out of the poll: {error}");
        }
    }
}
