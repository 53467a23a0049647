//! The command lines of a session on their way to the wire, and the replies that the server owes to them.

use bytes::BytesMut;

use crate::command::Command;

/// The commands of a session.
pub(super) struct CommandQueue {
    /// Command lines that are not yet sent. They may contain secrets.
    lines: BytesMut,
    /// The number of replies that the server owes: the greeting, one to each command that was sent whole, and one to the end of
    /// each message.
    owed: usize,
}

impl CommandQueue {
    /// Returns the commands of a new session: none, while the server owes its greeting.
    pub(super) fn new() -> Self {
        Self { lines: BytesMut::new(), owed: 1 }
    }

    /// Queues a command. Returns its line.
    pub(super) fn push(&mut self, command: &Command<'_>) -> &[u8] {
        let begin = self.lines.len();
        command.write(&mut self.lines);
        self.lines.get(begin..).unwrap_or_default()
    }

    /// Returns whether every command is sent completely.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Appends at most `limit` octets of commands.
    pub(super) fn take(&mut self, limit: usize, out: &mut BytesMut) {
        let octets = self.lines.split_to(limit.min(self.lines.len()));
        out.extend_from_slice(&octets);
        // Each command is one line, and the line feed is its last octet.
        self.owed += memchr::memchr_iter(b'\n', &octets).count();
    }

    /// Drops the commands that are not yet sent.
    pub(super) fn clear(&mut self) {
        self.lines.clear();
    }

    /// Records that the end of a message is sent, which the server must answer.
    pub(super) fn expect_final_reply(&mut self) {
        self.owed += 1;
    }

    /// Returns how many replies the server owes.
    pub(super) fn owed(&self) -> usize {
        self.owed
    }

    /// Counts a reply. Returns whether the server owed one.
    pub(super) fn take_reply(&mut self) -> bool {
        let is_owed = self.owed > 0;
        self.owed = self.owed.saturating_sub(1);
        is_owed
    }
}
