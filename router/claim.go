package router

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
)

// ClaimPath is where a starting runner fetches its configuration, and VerifyPath where it
// asks whether it may serve the job that GitHub gave it.
const (
	ClaimPath  = "/runner/v1/claim"
	VerifyPath = "/runner/v1/verify"
)

// NewClaimToken returns a new random token.
func NewClaimToken() Secret {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the program first
	return Secret(base64.RawURLEncoding.EncodeToString(b[:]))
}

// Verification returns the token for VerifyPath of the runner with a claim token. Neither it
// nor the claim token can be found from the other's hash.
func (s Secret) Verification() Secret {
	sum := sha256.Sum256([]byte("verify " + string(s)))
	return Secret(base64.RawURLEncoding.EncodeToString(sum[:]))
}

// Hash returns the SHA-256 of a token, which is all that a Store keeps of it.
func (s Secret) Hash() [32]byte { return sha256.Sum256([]byte(s)) }
