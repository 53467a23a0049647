//! Those who connect to the daemon, for its page or to ask and to order something: where they come in.

mod door;
mod listener;
mod socket_file;

pub(crate) use self::door::Door;
pub(crate) use self::listener::{Listener, Stream};
pub(crate) use self::socket_file::SocketFile;
