use super::*;

fn account(uid: u32, gid: u32) -> Account {
    Account { name: c"somebody".into(), uid: Uid::from_raw(uid), gid: Gid::from_raw(gid) }
}

#[test]
fn the_group_is_the_users_primary_one_unless_it_is_given() {
    let user = Some(account(7, 8));
    assert_eq!(Identity { user: user.clone(), group: None }.gid(), Some(Gid::from_raw(8)));
    assert_eq!(Identity { user, group: Some(Gid::from_raw(9)) }.gid(), Some(Gid::from_raw(9)));
    let only_group = Identity { user: None, group: Some(Gid::from_raw(9)) };
    assert_eq!((only_group.uid(), only_group.gid()), (None, Some(Gid::from_raw(9))));
    assert_eq!(Identity::default().gid(), None);
}

#[test]
fn users_and_groups_are_found_by_name() {
    assert_eq!(Account::of_user("root").unwrap().unwrap().uid, Uid::from_raw(0));
    assert_eq!(group_id("root").unwrap(), Some(Gid::from_raw(0)));
    for name in ["no-such-account", "0", "ro\0ot", ""] {
        assert_eq!(Account::of_user(name).unwrap(), None, "{name:?}");
        assert_eq!(group_id(name).unwrap(), None, "{name:?}");
    }
}

#[test]
fn only_the_verified_identity_passes() {
    // The user who runs the tests passes as this user, and as no other.
    let (uid, gid) = (Uid::current(), Gid::current());
    let groups = unistd::getgroups().unwrap();
    assert_eq!(verify_user(uid), Ok(()));
    assert_eq!(verify_groups(gid, &groups), Ok(()));
    let refused = |result| matches!(result, Err(PrivilegeError::NotDropped(_)));
    assert!(refused(verify_user(Uid::from_raw(uid.as_raw() + 1))));
    assert!(refused(verify_groups(Gid::from_raw(gid.as_raw() + 1), &groups)));
    if let Some((_, rest)) = groups.split_first() {
        assert!(refused(verify_groups(gid, rest)));
    }
}
