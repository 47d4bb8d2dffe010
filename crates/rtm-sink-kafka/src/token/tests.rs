#![allow(clippy::unwrap_used)]

use super::*;

fn options(over: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut options = BTreeMap::new();
    let base = [
        (METHOD, "oidc"),
        (URL, "https://login.example/token"),
        (ID, "bridge"),
        (SECRET, "canary"),
    ];
    for (name, value) in base.iter().chain(over) {
        options.insert((*name).into(), (*value).into());
    }
    options
}

/// Holds: what OIDC needs, and what is not built in, is named by its option, and no value is shown.
#[test]
fn what_is_not_built_in_is_named() {
    assert!(Oidc::of(&options(&[])).unwrap().is_some());
    for (over, name) in [
        ((METHOD, "other"), METHOD),
        (
            (GRANT, "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            GRANT,
        ),
        ((URL, "ftp://login.example"), URL),
        (
            ("sasl.oauthbearer.extensions", "canary=1"),
            "sasl.oauthbearer.extensions",
        ),
    ] {
        let error = Oidc::of(&options(&[over])).err().unwrap();
        let error = format!("{error:?}");
        assert!(error.contains(name) && !error.contains("canary"), "{error}");
    }
    let mut without = options(&[]);
    without.remove(SECRET);
    assert_eq!(Oidc::of(&without).err().unwrap().name, SECRET);
}

/// Holds: a token lasts for as long as its own claim says, or else the answer; without either it is none.
#[test]
fn a_token_says_how_long_it_lasts() {
    let claims = URL_SAFE_NO_PAD.encode(r#"{"sub":"someone","exp":4000000000}"#);
    let signed = json!({ "access_token": format!("a.{claims}.c"), "expires_in": 5 });
    let token = Token::read(&signed, "bridge").unwrap();
    assert_eq!(
        (token.ends, token.principal.as_str()),
        (4_000_000_000_000, "someone")
    );
    let opaque = json!({ "access_token": "opaque", "expires_in": 60 });
    let token = Token::read(&opaque, "bridge").unwrap();
    assert!(token.is_good() && token.principal == "bridge");
    for bad in [
        json!({ "access_token": "opaque" }),
        json!({ "expires_in": 5 }),
    ] {
        assert!(Token::read(&bad, "bridge").is_err());
    }
}
