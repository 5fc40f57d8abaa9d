//! Keys and certificates of a control plane.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

/// A directory with keys and certificates. The directory's own certificate authority signs all certificates.
#[derive(Debug)]
pub struct Certificates {
    directory: PathBuf,
}

impl Certificates {
    /// Creates the certificate authority `ca`, the certificates `apiserver` (for these addresses and names) and
    /// `kubelet-client`, and the key pair `service-account`.
    pub fn create(directory: &Path, addresses: &[IpAddr], names: &[&str]) -> Result<Self> {
        std::fs::create_dir_all(directory).with_context(|| format!("{} can't be created", directory.display()))?;
        let this = Self { directory: directory.to_owned() };
        let authority = this.create_authority()?;

        let mut server = params("kube-apiserver", ExtendedKeyUsagePurpose::ServerAuth);
        server.subject_alt_names = addresses.iter().copied().map(SanType::IpAddress).collect();
        for name in names {
            server.subject_alt_names.push(SanType::DnsName((*name).try_into()?));
        }
        this.issue("apiserver", &server, &authority)?;

        let mut client = params("kube-apiserver-kubelet-client", ExtendedKeyUsagePurpose::ClientAuth);
        client.distinguished_name.push(DnType::OrganizationName, "system:masters");
        this.issue("kubelet-client", &client, &authority)?;

        // Write the public key to a separate file, with which the API server verifies ServiceAccount tokens. For this
        // purpose, the API server can't read an EC private key in the format of `service-account.key`.
        let service_account = KeyPair::generate()?;
        this.write("service-account.key", &service_account.serialize_pem())?;
        this.write("service-account.pub", &service_account.public_key_pem())?;
        Ok(this)
    }

    /// The path of a file in the directory, such as `ca.crt`, `apiserver.key` or `service-account.pub`.
    pub fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    fn create_authority(&self) -> Result<Issuer<'static, KeyPair>> {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name("bobbin-e2e-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        self.write("ca.crt", &params.self_signed(&key)?.pem())?;
        Ok(Issuer::new(params, key))
    }

    fn issue(&self, name: &str, params: &CertificateParams, authority: &Issuer<'_, KeyPair>) -> Result<()> {
        let key = KeyPair::generate()?;
        self.write(&format!("{name}.crt"), &params.signed_by(&key, authority)?.pem())?;
        self.write(&format!("{name}.key"), &key.serialize_pem())
    }

    fn write(&self, name: &str, pem: &str) -> Result<()> {
        let path = self.directory.join(name);
        std::fs::write(&path, pem).with_context(|| format!("{} can't be written", path.display()))
    }
}

fn params(name: &str, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.extended_key_usages = vec![usage];
    params
}

fn common_name(name: &str) -> rcgen::DistinguishedName {
    let mut distinguished_name = rcgen::DistinguishedName::new();
    distinguished_name.push(DnType::CommonName, name);
    distinguished_name
}
