//! Certificates and keys of a control plane, made by the `openssl` executable. Only the control plane asks for them.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A directory of keys and certificates, signed by a certificate authority of its own.
#[derive(Debug)]
pub struct Certificates {
    directory: PathBuf,
}

impl Certificates {
    /// Makes the authority `ca`, `apiserver` (for the names and addresses given), `kubelet-client` and the key `service-account`.
    pub fn make(directory: &Path, addresses: &[IpAddr], names: &[&str]) -> Result<Self> {
        std::fs::create_dir_all(directory).with_context(|| format!("{} can't be made", directory.display()))?;
        let this = Self { directory: directory.to_owned() };
        this.key("ca")?;
        let authority = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,digitalSignature\n";
        this.request("ca", "/CN=bobbin-e2e-ca")?;
        this.sign("ca", &["-signkey", &this.file("ca.key")], authority)?;
        let mut others: Vec<String> = addresses.iter().map(|a| format!("IP:{a}")).collect();
        others.extend(names.iter().map(|n| format!("DNS:{n}")));
        let usage = format!("extendedKeyUsage=serverAuth\nsubjectAltName={}\n", others.join(","));
        this.issue("apiserver", "/CN=kube-apiserver", &usage)?;
        this.client("kubelet-client", "kube-apiserver-kubelet-client", &["system:masters"])?;
        this.key("service-account")?;
        Ok(this)
    }

    /// Makes a client certificate `NAME.crt` and `NAME.key` for a user and its groups.
    pub fn client(&self, name: &str, user: &str, groups: &[&str]) -> Result<()> {
        let groups = groups.iter().flat_map(|group| ["/O=", group]);
        let subject: String = groups.chain(["/CN=", user]).collect();
        self.issue(name, &subject, "extendedKeyUsage=clientAuth\n")
    }

    /// The path of a file: `ca.crt`, `apiserver.key`, `service-account.key`, …
    pub fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    fn issue(&self, name: &str, subject: &str, extensions: &str) -> Result<()> {
        self.key(name)?;
        self.request(name, subject)?;
        let (certificate, key) = (self.file("ca.crt"), self.file("ca.key"));
        self.sign(name, &["-CA", &certificate, "-CAkey", &key, "-CAcreateserial"], extensions)
    }

    fn key(&self, name: &str) -> Result<()> {
        openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &self.file(&format!("{name}.key"))])
    }

    fn request(&self, name: &str, subject: &str) -> Result<()> {
        let (key, request) = (self.file(&format!("{name}.key")), self.file(&format!("{name}.csr")));
        openssl(&["req", "-new", "-key", &key, "-subj", subject, "-out", &request])
    }

    fn sign(&self, name: &str, by: &[&str], extensions: &str) -> Result<()> {
        let (request, certificate) = (self.file(&format!("{name}.csr")), self.file(&format!("{name}.crt")));
        let extension_file = self.file(&format!("{name}.ext"));
        std::fs::write(&extension_file, extensions)?;
        let mut args =
            vec!["x509", "-req", "-days", "30", "-in", &request, "-out", &certificate, "-extfile", &extension_file];
        args.extend(by);
        openssl(&args)
    }
}

fn openssl(args: &[&str]) -> Result<()> {
    let run = Command::new("openssl")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .context("the program openssl is missing: install the package openssl")?;
    if !run.status.success() {
        bail!("openssl {} failed: {}", args.join(" "), String::from_utf8_lossy(&run.stderr).trim());
    }
    Ok(())
}
