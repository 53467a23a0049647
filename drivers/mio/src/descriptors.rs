//! How many connections the system lets this process have.

use std::io;

use nix::sys::resource::{self, Resource};

/// Raises the limit of open descriptors as far as the system lets it be raised, and returns it.
pub fn raise_limit() -> io::Result<u64> {
    let (soft, hard) = resource::getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        resource::setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_as_high_as_it_goes() {
        let limit = raise_limit().unwrap();
        assert_eq!(resource::getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (limit, limit));
    }
}
