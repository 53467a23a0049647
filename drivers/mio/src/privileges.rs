//! Giving up the privileges of root, for good.

use std::ffi::CString;
use std::io;

use nix::errno::Errno;
use nix::unistd::{self, Gid, Group, Uid, User};
use thiserror::Error;

/// A user of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user's name.
    pub name: CString,
    /// The user's id.
    pub uid: Uid,
    /// The user's primary group.
    pub gid: Gid,
}

impl Account {
    /// Looks up the user of this name.
    pub fn of_user(name: &str) -> io::Result<Option<Self>> {
        // No user has a name with a NUL in it.
        let Ok(c_name) = CString::new(name) else { return Ok(None) };
        let user = User::from_name(name)?;
        Ok(user.map(|user| Self { name: c_name, uid: user.uid, gid: user.gid }))
    }
}

/// Looks up the group of this name.
pub fn group_id(name: &str) -> io::Result<Option<Gid>> {
    if name.contains('\0') {
        return Ok(None);
    }
    Ok(Group::from_name(name)?.map(|group| group.gid))
}

/// The user and group to become, from the directives `user` and `group`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The directive `user`.
    pub user: Option<Account>,
    /// The directive `group`.
    pub group: Option<Gid>,
}

impl Identity {
    /// Returns the user's id, if the user changes.
    pub fn uid(&self) -> Option<Uid> {
        self.user.as_ref().map(|user| user.uid)
    }

    /// Returns the directive `group`, or else the user's primary group; `None` if the group does not change.
    pub fn gid(&self) -> Option<Gid> {
        self.group.or_else(|| self.user.as_ref().map(|user| user.gid))
    }
}

/// Why privileges were not dropped.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum PrivilegeError {
    /// A system call failed.
    #[error("the privileges cannot be dropped: {call} failed: {errno}")]
    Call {
        /// Its name.
        call: &'static str,
        /// Its error.
        errno: Errno,
    },
    /// The system reported success, but did not do it.
    #[error("the privileges were not dropped, although the system says so: {0}")]
    NotDropped(&'static str),
}

/// Returns whether the process has privileges to drop.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Becomes `identity`, with its supplementary groups, and verifies it. Only root can do that.
pub fn drop_to(identity: &Identity) -> Result<(), PrivilegeError> {
    // The groups go first: without root's user id they can no longer be changed.
    if let Some(gid) = identity.gid() {
        match &identity.user {
            Some(user) => unistd::initgroups(&user.name, gid).map_err(failed("initgroups"))?,
            None => unistd::setgroups(&[gid]).map_err(failed("setgroups"))?,
        }
        unistd::setresgid(gid, gid, gid).map_err(failed("setresgid"))?;
    }
    if let Some(uid) = identity.uid() {
        unistd::setresuid(uid, uid, uid).map_err(failed("setresuid"))?;
    }
    verify(identity)
}

/// Checks that the process is `identity` in all respects, and cannot become root again.
fn verify(identity: &Identity) -> Result<(), PrivilegeError> {
    if let Some(gid) = identity.gid() {
        let mut allowed = vec![gid];
        if let Some(user) = &identity.user {
            let groups = unistd::getgrouplist(&user.name, gid);
            allowed.extend(groups.map_err(failed("getgrouplist"))?);
        }
        verify_groups(gid, &allowed)?;
    }
    identity.uid().map_or(Ok(()), verify_user)
}

fn verify_groups(gid: Gid, allowed: &[Gid]) -> Result<(), PrivilegeError> {
    let ids = unistd::getresgid().map_err(failed("getresgid"))?;
    if [ids.real, ids.effective, ids.saved] != [gid; 3] {
        return Err(PrivilegeError::NotDropped("the process still has another group"));
    }
    let groups = unistd::getgroups().map_err(failed("getgroups"))?;
    if !groups.iter().all(|group| allowed.contains(group)) {
        return Err(PrivilegeError::NotDropped("the process still has another supplementary group"));
    }
    Ok(())
}

fn verify_user(uid: Uid) -> Result<(), PrivilegeError> {
    let ids = unistd::getresuid().map_err(failed("getresuid"))?;
    if [ids.real, ids.effective, ids.saved] != [uid; 3] {
        return Err(PrivilegeError::NotDropped("the process still has another user"));
    }
    if !uid.is_root() && unistd::setresuid(uid, Uid::from_raw(0), uid).is_ok() {
        return Err(PrivilegeError::NotDropped("the process can become root again"));
    }
    Ok(())
}

fn failed(call: &'static str) -> impl FnOnce(Errno) -> PrivilegeError {
    move |errno| PrivilegeError::Call { call, errno }
}

#[cfg(test)]
mod tests;
