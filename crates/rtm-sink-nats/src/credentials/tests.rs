use super::*;

/// Holds: each kind of credentials is read from where it is, signs where it must, and shows nowhere.
#[tokio::test]
async fn credentials_are_read_and_hidden() {
    let pair = KeyPair::new_user();
    let seed = pair.seed().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let creds = dir.path().join("a.creds");
    let text = format!(
        "-----BEGIN NATS USER JWT-----\njwt-canary\n------END NATS USER JWT------\n\n*** IMPORTANT ***\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    );
    std::fs::write(&creds, format!("\u{feff}{text}")).unwrap();
    let seed_file = dir.path().join("seed");
    std::fs::write(&seed_file, format!("\u{feff}{seed}\r\n")).unwrap();

    let ways = [
        NatsAuth::CredentialsFile(creds),
        NatsAuth::NkeySeed(Secret::File(seed_file)),
        NatsAuth::Jwt {
            jwt: "jwt-canary".into(),
            seed: seed.as_str().into(),
        },
        NatsAuth::UserPassword {
            user: "u".into(),
            password: "pw-canary".into(),
        },
        NatsAuth::Token("token-canary".into()),
    ];
    for auth in ways {
        let shown = format!("{auth:?}");
        assert!(
            !shown.contains("canary") && !shown.contains(&seed),
            "{shown}"
        );
        auth.check().unwrap();
        let answer = Credentials::read(&auth)
            .await
            .unwrap()
            .answer(b"nonce")
            .unwrap();
        let signs = matches!(
            auth,
            NatsAuth::CredentialsFile(_) | NatsAuth::NkeySeed(_) | NatsAuth::Jwt { .. }
        );
        assert_eq!(answer.signature.is_some(), signs, "{shown}");
        if let Some(signature) = &answer.signature {
            pair.verify(b"nonce", signature).unwrap();
        }
        let nkey = matches!(auth, NatsAuth::NkeySeed(_)).then(|| pair.public_key());
        assert_eq!(answer.nkey, nkey);
        let jwt = (signs && nkey.is_none()).then(|| "jwt-canary".to_owned());
        assert_eq!(answer.jwt, jwt);
        let password =
            matches!(auth, NatsAuth::UserPassword { .. }).then(|| "pw-canary".to_owned());
        assert_eq!(answer.password, password);
        let token = matches!(auth, NatsAuth::Token(_)).then(|| "token-canary".to_owned());
        assert_eq!(answer.token, token);
    }
}

#[tokio::test]
async fn unusable_credentials_say_where_not_what() {
    let dir = tempfile::tempdir().unwrap();
    let creds = dir.path().join("a.creds");
    std::fs::write(
        &creds,
        "-----BEGIN NATS USER JWT-----\njwt-canary\n------END NATS USER JWT------\n",
    )
    .unwrap();
    let cases = [
        (NatsAuth::CredentialsFile(creds), "has no NKEY SEED section"),
        (
            NatsAuth::CredentialsFile("/nowhere/a".into()),
            "cannot read /nowhere/a",
        ),
        (NatsAuth::NkeySeed("SUcanary".into()), "not an NKey seed"),
        (
            NatsAuth::Token(Secret::File("/nowhere/t".into())),
            "cannot read /nowhere/t",
        ),
    ];
    for (auth, expected) in cases {
        let Err(error) = Credentials::read(&auth).await else {
            panic!("{auth:?} was read")
        };
        assert_eq!(auth.check().unwrap_err().to_string(), error.to_string());
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    }
}
