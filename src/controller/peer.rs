//! Who is at the other end of the socket: the user id that the kernel tells, and the login user that survives sudo.

use crate::text::Safe;

/// The value of an unset login uid.
const UNSET: u32 = u32::MAX;

/// The name of whoever connected: `alice`, or `alice (as root)` when they became somebody else after logging in.
/// `hint` is a name the client gives itself (a CI job), shown beside and never instead.
#[must_use]
pub fn actor(uid: u32, pid: Option<i32>, hint: Option<&Safe>) -> Safe {
    let login = pid.and_then(login_uid).filter(|l| *l != UNSET && *l != uid);
    let name = match login {
        Some(login) => format!("{} (as {})", user_name(login), user_name(uid)),
        None => user_name(uid),
    };
    match hint.map(|h| Safe::capped(h.as_str(), 40)).filter(|h| !h.is_empty() && h.as_str() != name) {
        Some(hint) => Safe::new(&format!("{name} [{hint}]")),
        None => Safe::new(&name),
    }
}

fn login_uid(pid: i32) -> Option<u32> {
    std::fs::read_to_string(format!("/proc/{pid}/loginuid")).ok()?.trim().parse().ok()
}

/// The name of a user, from `/etc/passwd`; `uid N` for one that is not listed there.
#[must_use]
pub fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    passwd
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        })
        .unwrap_or_else(|| format!("uid {uid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_stands_beside_the_name_the_kernel_tells() {
        let root = user_name(0);
        assert_eq!(root, "root");
        assert_eq!(actor(0, None, Some(&"ci#4711".into())).as_str(), "root [ci#4711]");
        assert_eq!(actor(4_000_000_000, None, None).as_str(), "uid 4000000000");
    }
}
