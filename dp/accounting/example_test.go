package accounting_test

import (
	"errors"
	"fmt"

	"github.com/undertone-fl/undertone/dp/accounting"
)

// A job with a budget of epsilon 1 at delta 1e-6 plans twenty rounds, and asks
// for a twenty-first.
func Example() {
	budget, err := accounting.GaussianBudget(1, 1e-6)
	if err != nil {
		fmt.Println(err)
		return
	}
	filter := accounting.Filter{Budget: budget}

	z, err := (budget / 20).NoiseMultiplier()
	if err != nil {
		fmt.Println(err)
		return
	}
	charge, err := accounting.GaussianCharge(z, 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	rounds := 0
	for err = filter.Reserve(charge); err == nil; err = filter.Reserve(charge) {
		rounds++ // and collect, add noise z, release
	}
	epsilon, _ := filter.Spent().GaussianEpsilon(1e-6)
	fmt.Printf("%d rounds at noise multiplier %.4f: epsilon %.6f\n", rounds, z, epsilon)
	fmt.Println(errors.Is(err, accounting.ErrBudgetExceeded), err)
	// Output:
	// 20 rounds at noise multiplier 18.8933: epsilon 1.000000
	// true accounting: a charge of 0.001400724 rho does not fit: 0.028014480 rho of 0.028014481 rho are spent
}
