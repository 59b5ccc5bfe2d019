package ledger

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"reflect"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/accounting"
)

// Specification is what a job's specification says, whose parameters are the
// method's.
type Specification struct {
	Job        string             `json:"job"`
	Method     string             `json:"method"`
	Parameters json.RawMessage    `json:"parameters"`
	Releases   []Release          `json:"releases"`
	Lattice    dp.Lattice         `json:"lattice"`
	Adjacency  dp.Adjacency       `json:"adjacency"`
	Trust      string             `json:"trust"`
	NMin       int                `json:"n_min"`
	RoundSize  int                `json:"round_size"`
	Deadline   int64              `json:"deadline_ms"`
	Delta      float64            `json:"delta"`
	Budget     accounting.NanoRho `json:"budget_nano_rho,string"`
}

// Release is what a specification says of one round: the contributions' length,
// largest L2 norm, noise and largest coordinate, in a Mechanism's units, and the charge.
type Release struct {
	Kind    string             `json:"kind"`
	Length  int                `json:"length"`
	Bound   uint64             `json:"bound,string"`
	Sigma   uint64             `json:"sigma,string"`
	Largest uint64             `json:"largest,string"`
	Charge  accounting.NanoRho `json:"charge_nano_rho,string"`
}

// Trust modes.
const (
	TrustDistributed = "distributed"
	TrustCentral     = "central"
	TrustLocal       = "local"
)

// readSpecification reads a specification, and refuses what its format refuses
// (aggregation/rounds/FORMAT.md): every field is there once, under its exact name, and no
// other, each in its range.
func readSpecification(b []byte) (*Specification, error) {
	switch {
	case len(b) > maxSpecification:
		return nil, fmt.Errorf("it has %d bytes, and may have %d", len(b), maxSpecification)
	case !utf8.Valid(b):
		return nil, errors.New("it is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if err := checkNames(d, reflect.TypeFor[Specification]()); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("it goes on after its end")
	}
	s := new(Specification)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, mistyped(b, reflect.TypeFor[Specification](), err)
	}
	return s, s.check()
}

// checkNames reads a value of type t, and holds that its objects have the fields of
// their structs, each once. json.Unmarshal would take the last of two fields of a name,
// a name in other letters, null for nothing, and nothing for zero.
func checkNames(d *json.Decoder, t reflect.Type) error {
	switch {
	case t.Kind() == reflect.Struct:
		return checkObject(d, t)
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		if token, err := d.Token(); err != nil || token != json.Delim('[') {
			return errors.New("it has no list where one belongs")
		}
		for d.More() {
			if err := checkNames(d, t.Elem()); err != nil {
				return err
			}
		}
		_, err := d.Token()
		return err
	}
	if t == reflect.TypeFor[json.RawMessage]() {
		return checkParameters(d)
	}
	switch value, err := d.Token(); value.(type) {
	case nil:
		return cmp.Or(err, errors.New("it has a null"))
	case json.Delim:
		return errors.New("it has more than a number or a text where one belongs")
	}
	return nil
}

// checkParameters reads the method's parameters, an object.
func checkParameters(d *json.Decoder) error {
	var value json.RawMessage
	if err := d.Decode(&value); err != nil {
		return err
	}
	if value[0] != '{' {
		return errors.New("they are no object")
	}
	return nil
}

// fieldTwice finds a name that an object has twice, at any depth of a JSON value; empty if
// there is none.
func fieldTwice(value []byte) string {
	d := json.NewDecoder(bytes.NewReader(value))
	type level struct {
		names map[string]bool // nil: of a list
		value bool            // the next token is one, and no name
	}
	var levels []level
	for {
		token, err := d.Token()
		if err != nil {
			return ""
		}
		top := len(levels) - 1
		if top >= 0 && levels[top].names != nil && token != json.Delim('}') {
			if at := &levels[top]; at.value {
				at.value = false
			} else {
				field := token.(string)
				if at.names[field] {
					return field
				}
				at.names[field], at.value = true, true
				continue
			}
		}
		switch token {
		case json.Delim('{'):
			levels = append(levels, level{names: make(map[string]bool)})
		case json.Delim('['):
			levels = append(levels, level{})
		case json.Delim('}'), json.Delim(']'):
			levels = levels[:top]
		}
	}
}

func checkObject(d *json.Decoder, t reflect.Type) error {
	if token, err := d.Token(); err != nil || token != json.Delim('{') {
		return errors.New("it has no object where one belongs")
	}
	missing := make(map[string]reflect.Type, t.NumField())
	for i := range t.NumField() {
		field, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		missing[field] = t.Field(i).Type
	}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return err
		}
		field := token.(string)
		value, wanted := missing[field]
		if !wanted {
			return fmt.Errorf("it has a field %.64q that is unknown, or there twice", field)
		}
		delete(missing, field)
		if err := checkNames(d, value); err != nil {
			return fmt.Errorf("%s: %w", field, err)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("it has %d fields too few", len(missing))
	}
	_, err := d.Token()
	return err
}

// What a specification may have.
const (
	maxReleases = 4096
	maxMembers  = 1 << 24
	maxDeadline = int64(366 * 24 * time.Hour / time.Millisecond)
	maxLength   = 1 << 24
	maxBound    = 1 << 52
	minSigma    = 1 << 19 // half a lattice unit: what the theorem on sums of noise wants
	maxSigma    = 1 << 60
)

// name is what a job, a method and a kind of release may be called.
var name = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

func (s *Specification) check() error {
	switch {
	case !name.MatchString(s.Job) || !name.MatchString(s.Method):
		return fmt.Errorf("job %.64q of method %.64q is no name", s.Job, s.Method)
	case s.Trust != TrustDistributed && s.Trust != TrustCentral && s.Trust != TrustLocal:
		return fmt.Errorf("trust %.32q is unknown", s.Trust)
	case s.RoundSize < 1 || s.RoundSize > maxMembers:
		return fmt.Errorf("round_size is %d", s.RoundSize)
	case s.NMin < 1 || s.NMin > s.RoundSize:
		return fmt.Errorf("n_min is %d of a round_size of %d", s.NMin, s.RoundSize)
	case s.Deadline < 1 || s.Deadline > maxDeadline:
		return fmt.Errorf("deadline_ms is %d", s.Deadline)
	case !(s.Delta > 0 && s.Delta < 1):
		return fmt.Errorf("delta is %v", s.Delta)
	case len(s.Releases) < 1 || len(s.Releases) > maxReleases:
		return fmt.Errorf("it has %d releases", len(s.Releases))
	case s.Lattice.Validate() != nil:
		return s.Lattice.Validate()
	case s.Lattice.ModulusBits%8 != 0:
		return fmt.Errorf("modulus_bits is %d, and whole bytes are sent", s.Lattice.ModulusBits)
	case s.Budget < s.Releases[0].Charge:
		return errors.New("its budget has no room for the first release")
	}
	largest := uint64(1)<<(s.Lattice.ModulusBits-1) - 1 // of the lattice's numbers
	for i, r := range s.Releases {
		switch {
		case !name.MatchString(r.Kind):
			return fmt.Errorf("kind of release %d is %.64q", i+1, r.Kind)
		case r.Length < 1 || r.Length > maxLength:
			return fmt.Errorf("length of release %d is %d", i+1, r.Length)
		case r.Bound < 1 || r.Bound > min(maxBound, largest):
			return fmt.Errorf("bound of release %d is %d", i+1, r.Bound)
		case r.Sigma < minSigma || r.Sigma > maxSigma:
			return fmt.Errorf("sigma of release %d is %d", i+1, r.Sigma)
		case r.Largest < r.Bound || r.Largest > largest || s.Trust == TrustCentral && r.Largest != r.Bound:
			return fmt.Errorf("largest of release %d is %d, of bound %d under %s trust", i+1, r.Largest, r.Bound, s.Trust)
		case r.Charge < 1:
			return fmt.Errorf("release %d is free", i+1)
		}
	}
	return nil
}

// Parts is how many contributions' noise makes up what a release is charged for.
func (s *Specification) Parts() int {
	if s.Trust == TrustLocal {
		return 1
	}
	return s.NMin
}

// Mechanism is that of a round, counted from 1.
func (s *Specification) Mechanism(round int) Mechanism {
	r := &s.Releases[round-1]
	return Mechanism{
		Length: r.Length, Clip: r.Bound, Sigma: r.Sigma,
		ScaleBits: s.Lattice.ScaleBits, ModulusBits: s.Lattice.ModulusBits,
		NMin: s.NMin, Adjacency: s.Adjacency, Trust: s.Trust, Sampler: SamplerNone,
	}
}

// cost of a mechanism, whose noise is made up by so many contributions, in nano-rho,
// rounded up; the second result is false if no NanoRho is as much.
//
// # Theorem
//
// Let z be integer vectors of n clients, of length D and ||z||_2 <= B, and let each carry
// independent noise N_Z(0, s^2 I), s >= 1/2. Their sum is rho-zCDP, with
//
//	sqrt(2 rho) = f B / (sqrt(n) s) + t sqrt(D),
//	t = 10 sum_{k=1}^{n-1} exp(-2 pi^2 s^2 k/(k+1)),
//
// where the sums of two adjacent inputs differ by at most f B in norm: f = 1 under zero-out,
// 2 under replace-one. (One discrete Gaussian of variance n s^2: Canonne, Kamath,
// Steinke 2020, theorem 4. That the sum of n is as good up to a factor exp(±t) in the
// probabilities of each coordinate: Kairouz, Liu, Steinke 2021, section 3.) More
// contributions only add noise; the modulus, and all that is made of the sum, is
// post-processing.
//
// It is computed here in whole numbers of 2^-256, each rounded up.
func (m *Mechanism) cost(parts int) (nano accounting.NanoRho, ok bool) {
	factor := uint64(1)
	if m.Adjacency == dp.ReplaceOne {
		factor = 2
	}
	// s = Sigma / 2^20.
	variance := product(m.Sigma, m.Sigma, uint64(parts))
	square := product(factor, factor, m.Clip, m.Clip)           // (f B)^2 / (n s^2)
	square = ceilQuo(square.Lsh(square, 40+fraction), variance) //
	t := tail(m.Sigma, parts)
	d := new(big.Int).SetUint64(uint64(m.Length))
	cross := ceilSqrt(new(big.Int).Mul(new(big.Int).Lsh(square, fraction), d)) // sqrt(square D)
	cross.Mul(cross, t).Lsh(cross, 1)                                          // 2 t sqrt(square D)
	both := new(big.Int).Mul(t, t)
	both.Mul(both, d).Add(both, cross) // t^2 D + cross, of 2^-512
	twoRho := both.Add(both, square.Lsh(square, fraction))
	twoRho.Mul(twoRho, big.NewInt(1e9))
	rho := ceilQuo(twoRho, new(big.Int).Lsh(big.NewInt(1), 2*fraction+1))
	return accounting.NanoRho(rho.Uint64()), rho.IsUint64()
}

const fraction = 256 // bits

// tail is an upper bound on t, in units of 2^-256: of its terms, which fall with k, the
// first are taken as powers of two, and the rest for as large as the last of those. At
// the narrowest noise that is in use, s = 2, all but the first are below 2^-75.
func tail(sigma uint64, parts int) *big.Int {
	const separate = 16
	sum, term := new(big.Int), new(big.Int)
	for k := 1; k < parts && k <= separate; k++ {
		// 2 pi^2 / ln 2 = 28.4776...
		x := product(28477, sigma, sigma, uint64(k))
		x.Quo(x, product(1000<<40, uint64(k+1)))
		term.SetUint64(1)
		if x.IsUint64() && x.Uint64() < fraction {
			term.Lsh(term, uint(fraction-x.Uint64()))
		}
		sum.Add(sum, term)
	}
	if rest := parts - 1 - separate; rest > 0 {
		sum.Add(sum, term.Mul(term, big.NewInt(int64(rest))))
	}
	return sum.Mul(sum, big.NewInt(10))
}

func product(factors ...uint64) *big.Int {
	out := big.NewInt(1)
	for _, f := range factors {
		out.Mul(out, new(big.Int).SetUint64(f))
	}
	return out
}

func ceilQuo(a, b *big.Int) *big.Int {
	q, rest := new(big.Int).QuoRem(a, b, new(big.Int))
	if rest.Sign() > 0 {
		q.Add(q, big.NewInt(1))
	}
	return q
}

func ceilSqrt(a *big.Int) *big.Int {
	root := new(big.Int).Sqrt(a)
	if new(big.Int).Mul(root, root).Cmp(a) < 0 {
		root.Add(root, big.NewInt(1))
	}
	return root
}
