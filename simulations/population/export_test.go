package population

// ReadCSV is OpenCSV after opening the file.
var ReadCSV = readCSV
