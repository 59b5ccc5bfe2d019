package population

// Synthetic describes a population drawn from the model
// y = x^T (U w + b) + noise, and variants that are harder than the theory's.
type Synthetic struct {
	Clients    int     `json:"clients"`     // t
	Dim        int     `json:"dim"`         // d
	Rank       int     `json:"rank"`        // r, of U*
	Sparsity   int     `json:"sparsity"`    // k, non-zeros of each b
	Samples    int     `json:"samples"`     // m, of each user (the mean, if unequal)
	LabelNoise float64 `json:"label_noise"` // standard deviation of the response noise
	// WScale multiplies w ~ N(0, I); 0 means 1.
	WScale float64 `json:"w_scale,omitempty"`

	// UnequalSamples draws each m from a log-normal distribution with mean
	// Samples instead, at least 1.
	UnequalSamples bool `json:"unequal_samples,omitempty"`
	// Correlation is rho of the features' AR(1) covariance rho^|i-j|; 0 is N(0, I).
	Correlation float64 `json:"correlation,omitempty"`
	// HeavyTails draws the response noise from Student's t with 3 degrees of
	// freedom, scaled to the standard deviation LabelNoise.
	HeavyTails bool `json:"heavy_tails,omitempty"`
	// Outliers is the share of users whose theta is N(0, 4 I) instead.
	Outliers float64 `json:"outliers,omitempty"`
}

// CSV describes a population read from a file.
type CSV struct {
	Path   string `json:"path"`
	Format string `json:"format"` // "features" or "ratings"
	// Train is the number of training samples of each user, or below 1 their
	// fraction; the others are held out.
	Train float64 `json:"train"`
}
