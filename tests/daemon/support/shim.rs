//! A library between the daemon and the C library, for what no test can wait for, break in earnest, or listen at: clocks that leap, a disk
//! that hangs, and port 443. It needs a C compiler.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The library, and what it does.
pub(crate) struct Shim {
    library: PathBuf,
    control_path: PathBuf,
    control: File,
}

impl Shim {
    /// Builds it in a directory; `None`, with a message, if there is no C compiler.
    pub(crate) fn build(directory: &Path) -> Option<Self> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/daemon/support/shim.c");
        let library = directory.join("shim.so");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library).arg(source);
        let Ok(status) = compiler.status() else {
            super::skip("there is no C compiler");
            return None;
        };
        assert!(status.success(), "the C compiler fails: {status}");
        let control_path = directory.join("shim.control");
        std::fs::write(&control_path, [0; 24]).unwrap();
        let control = File::options().write(true).open(&control_path).unwrap();
        Some(Self { library, control_path, control })
    }

    /// Puts it into a command that is to be started.
    pub(super) fn preload(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("SHIM_CONTROL", &self.control_path);
    }

    /// All clocks go on by so many seconds at once.
    pub(crate) fn leap(&self, seconds: i64) {
        self.control.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }

    /// What is wanted of port 443 is to be had at this port.
    pub(crate) fn serve_https_at(&self, port: u16) {
        self.control.write_all_at(&i64::from(port).to_ne_bytes(), 16).unwrap();
    }

    /// The disk takes no more writes for good.
    pub(crate) fn let_disk_hang(&self) {
        self.control.write_all_at(&1_i64.to_ne_bytes(), 8).unwrap();
    }
}
