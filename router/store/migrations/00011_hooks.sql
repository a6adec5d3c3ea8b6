-- +goose Up

ALTER TABLE hooks ADD COLUMN heard_at INTEGER NOT NULL DEFAULT 0; -- when a delivery's headers last named it, about
ALTER TABLE hooks ADD COLUMN proved   INTEGER NOT NULL DEFAULT 0; -- 1: GitHub has listed its deliveries
UPDATE hooks SET proved = 1; -- those that are not are dropped when GitHub is asked

ALTER TABLE redeliveries ADD COLUMN action TEXT NOT NULL DEFAULT ''; -- of the delivery; empty: not known
