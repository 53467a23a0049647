//! Those who connect to the daemon, for its page or to ask and to order something: where they come in.

mod door;
mod listener;
mod outgoing;
mod socket_file;
mod words;

pub(crate) use self::door::Door;
pub(crate) use self::listener::{Listener, Stream};
pub(crate) use self::outgoing::Outgoing;
pub(crate) use self::socket_file::{PATH_LIMIT_OCTETS, SocketFile};
pub(crate) use self::words::{line, words_of};
