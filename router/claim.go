package router

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
)

// ClaimPath is where a starting runner fetches its configuration.
const ClaimPath = "/runner/v1/claim"

// NewClaimToken returns a new random token.
func NewClaimToken() Secret {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the program first
	return Secret(base64.RawURLEncoding.EncodeToString(b[:]))
}

// Hash returns the SHA-256 of a claim token, which is all that a Store keeps of it.
func (s Secret) Hash() [32]byte { return sha256.Sum256([]byte(s)) }
