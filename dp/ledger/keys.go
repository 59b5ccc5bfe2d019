package ledger

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// NewKey makes a key pair for a log's checkpoints, as signed notes have them: the
// secret one for note.NewSigner, the public one for note.NewVerifier. Fails where a log
// cannot have that name.
func NewKey(origin string) (secret, public string, err error) {
	if secret, public, err = note.GenerateKey(rand.Reader, origin); err == nil {
		err = CheckKey(origin, public)
	}
	return secret, public, err
}

// ParseSecret reads a secret key: one line of text, as NewKey and key files have it.
// Returns what signs with it, and its public half. The error has nothing of the text.
func ParseSecret(text string) (s note.Signer, public string, err error) {
	text = strings.TrimSpace(text)
	if s, err = note.NewSigner(text); err != nil {
		return nil, "", errors.New("ledger: no secret key")
	}
	// PRIVATE+KEY+name+hash+data, and data is the algorithm and the seed: all Ed25519,
	// or it would be no signer.
	fields := strings.SplitN(text, "+", 5)
	data, err := base64.StdEncoding.DecodeString(fields[4])
	if err != nil || len(data) != 1+ed25519.SeedSize {
		return nil, "", errors.New("ledger: no secret key")
	}
	seed := ed25519.NewKeyFromSeed(data[1:])
	public, err = note.NewEd25519VerifierKey(s.Name(), seed.Public().(ed25519.PublicKey))
	return s, public, err
}

// endorsement is the text by which a key hands on to the next.
func endorsement(origin, next string) string {
	return fmt.Sprintf("%s\nnext key\n%s\n", origin, next)
}

// Endorse returns the note by which the signer of a log's checkpoints hands on to the
// next key: KeyRotated.Endorsement.
func Endorse(s note.Signer, next string) (string, error) {
	signed, err := note.Sign(&note.Note{Text: endorsement(s.Name(), next)}, s)
	return string(signed), err
}

// CheckEndorsement checks that key hands on to next, and returns next. That next was no
// key before is for whoever knows those. Fails with ErrSignature.
func CheckEndorsement(key note.Verifier, next, signed string) (note.Verifier, error) {
	n, err := note.Open([]byte(signed), note.VerifierList(key))
	if err != nil || n.Text != endorsement(key.Name(), next) {
		return nil, fmt.Errorf("%w: the next key has no endorsement by the one before", ErrSignature)
	}
	if CheckKey(key.Name(), next) != nil {
		return nil, fmt.Errorf("%w: the next key is no key of %.64q, as records have it", ErrSignature, key.Name())
	}
	return note.NewVerifier(next)
}

// ParseKey reads a public key: one line of text, as NewKey and key files have it.
func ParseKey(text string) (note.Verifier, error) {
	key, err := parseKey(text)
	if err != nil {
		return nil, err
	}
	return key.Verifier, nil
}

// CheckKey checks that text is a public key of a log, written as its records have it:
// one key has one text.
func CheckKey(origin, text string) error {
	key, err := parseKey(text)
	if err == nil && (key.text != text || key.Name() != origin) {
		err = fmt.Errorf("ledger: no public key of %.64q, as records have it", origin)
	}
	return err
}

// parseKey is ParseKey, with the one text of the key.
func parseKey(text string) (publicKey, error) {
	v, err := note.NewVerifier(strings.TrimSpace(text))
	if err != nil {
		return publicKey{}, fmt.Errorf("ledger: no public key: %w", err)
	}
	if !oneLine(v.Name(), maxOrigin) {
		return publicKey{}, fmt.Errorf("ledger: no public key: %.64q is no name of a log", v.Name())
	}
	_, encoded, _ := strings.Cut(strings.TrimSpace(text)[len(v.Name())+1:], "+")
	bits, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return publicKey{}, fmt.Errorf("ledger: no public key: %w", err)
	}
	text, err = note.NewEd25519VerifierKey(v.Name(), bits[1:]) // without its algorithm
	return publicKey{v, text}, err
}

// FollowKeys goes from a key that is trusted along the rotations of a log, in order, to
// the key that signs now. Rotations before the trusted key's are passed over. Fails with
// ErrSignature where one after it is not endorsed by the key before, or where a key comes
// again: one of the log's, or one of former, which whoever followed it before knows to
// have signed before the trusted one.
func FollowKeys(trusted string, rotations []*KeyRotated, former ...string) (note.Verifier, error) {
	key, err := parseKey(trusted)
	if err != nil {
		return nil, err
	}
	signed := keySet(former...)
	signed[key.text] = true
	next, followed := key.Verifier, false
	for _, r := range rotations {
		v, err := CheckEndorsement(next, r.Key, r.Endorsement)
		switch {
		case err == nil && signed[r.Key]:
			return nil, errKeyAgain
		case err == nil:
			next, followed = v, true
		case followed:
			return nil, err
		}
		signed[r.Key] = true
	}
	return next, nil
}

// errKeyAgain says that a log goes back to a key of its own.
var errKeyAgain = fmt.Errorf("%w: the next key signed before, and what it endorsed then would be good again", ErrSignature)

// keySet is a set of keys by their one text; what is no key is none of it.
func keySet(keys ...string) map[string]bool {
	set := make(map[string]bool, len(keys))
	for _, text := range keys {
		if key, err := parseKey(text); err == nil {
			set[key.text] = true
		}
	}
	return set
}
