package nomadsim

import (
	"crypto/rand"
	"encoding/base64"
	"net/http"

	"github.com/hashicorp/nomad/api"
)

// A signingKey is a public key of workload identities, as a JSON Web Key. It looks like
// one of RSA and belongs to no private key, as nothing is signed here.
type signingKey struct {
	Use       string `json:"use"`
	Type      string `json:"kty"`
	ID        string `json:"kid"`
	Algorithm string `json:"alg"`
	Modulus   string `json:"n"`
	Exponent  string `json:"e"`
}

func newSigningKey() signingKey {
	modulus := make([]byte, 256)
	_, _ = rand.Read(modulus) // never fails
	modulus[0] |= 0x80
	modulus[255] |= 1
	return signingKey{"sig", "RSA", newID(), "RS256", base64.RawURLEncoding.EncodeToString(modulus), "AQAB"}
}

// listKeys needs no token on a real Nomad, either.
func (s clusterAPI) listKeys(http.Header, *http.Request) (any, error) {
	return map[string]any{"keys": s.keys}, nil
}

// rotateKeys adds a key. The earlier ones stay.
func (s clusterAPI) rotateKeys(http.Header, *http.Request) (any, error) {
	added := newSigningKey()
	s.keys = append(s.keys, added)
	return map[string]any{"Key": &api.RootKeyMeta{
		KeyID: added.ID, Algorithm: api.EncryptionAlgorithmAES256GCM, CreateTime: s.cfg.Now().UnixNano(), State: api.RootKeyStateActive,
	}}, nil
}
